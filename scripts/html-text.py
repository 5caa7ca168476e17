#!/usr/bin/env python3
"""Prints the text of an HTML page's <article> (its whole text where there is none). Usage: html-text.py FILE"""
import html.parser
import re
import sys


class Text(html.parser.HTMLParser):
    def __init__(self, whole):
        super().__init__()
        self.out, self.hidden, self.inside = [], 0, whole

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style")
        self.inside += tag == "article"
        if tag in ("p", "li", "h1", "h2", "h3", "h4", "br", "div"):
            self.out.append("\n")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")
        self.inside -= tag == "article"

    def handle_data(self, data):
        if self.inside > 0 and not self.hidden:
            self.out.append(re.sub(r"\s+", " ", data))


page = open(sys.argv[1], encoding="utf-8", errors="replace").read()
text = Text(whole="<article" not in page)
text.feed(page)
print(re.sub(r"\s*\n\s*", "\n", "".join(text.out)).strip())
