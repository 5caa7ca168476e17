#!/usr/bin/env python3
"""htmlcheck.py PAGE...: pages are well formed and stand on their own. Says what is wrong, and where.

Every element is closed in its turn, attributes are quoted and come once, ids are unique and there where they are referred to,
text holds no bare < or &, and nothing is loaded: no scripts, links or addresses.
"""
import re
import sys
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "img", "link", "hr"}
SELF_CLOSED = {"rect", "line", "circle", "path"}  # in SVG


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=False)
        self.open, self.ids, self.refs, self.wrong, self.count = [], set(), [], [], {}
        if not text.startswith("<!DOCTYPE html>\n"):
            self.wrong.append("no doctype")
        self.feed(text)
        self.close()
        self.wrong += ["<%s> is not closed" % t for t in self.open]
        self.wrong += ["nothing has the id %s" % r for r in self.refs if r not in self.ids]

    def say(self, what):
        self.wrong.append("line %d: %s" % (self.getpos()[0], what))

    def attributes(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        names = [a for a, _ in attrs]
        if len(set(names)) != len(names):
            self.say("<%s> has an attribute twice" % tag)
        if not re.fullmatch(r'<[a-zA-Z0-9]+(\s+[a-zA-Z][a-zA-Z0-9-]*="[^"<]*")*\s*/?>', self.get_starttag_text()):
            self.say("<%s> is not well formed: %s" % (tag, self.get_starttag_text()[:200]))
        for name, value in attrs:
            if name == "id":
                if value in self.ids:
                    self.say("the id %s is there twice" % value)
                self.ids.add(value)
            elif name in ("aria-describedby", "aria-labelledby", "for"):
                self.refs += value.split()
            elif name in ("src", "href", "srcset", "action", "data") or name.startswith("on"):
                self.say("<%s %s>" % (tag, name))
        if tag in ("script", "link", "iframe", "img", "object", "base"):
            self.say("a <%s>" % tag)

    def handle_starttag(self, tag, attrs):
        self.attributes(tag, attrs)
        if tag in SELF_CLOSED and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)
        elif tag not in VOID | SELF_CLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes(tag, attrs)
        if tag not in SELF_CLOSED:
            self.say("<%s/>" % tag)

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.say("</%s> where <%s> is open" % (tag, self.open[-1] if self.open else "nothing"))
        else:
            self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open and re.search(r"[<&]", data):
            self.say("bare text: %r" % data[:60])
        if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", data):
            self.say("a control character: %r" % data[:60])
        if "style" in self.open and re.search(r"@import|url\(", data):
            self.say("the style loads something")

    def unknown_decl(self, data):
        self.say("<![%s" % data[:60])


bad = 0
for name in sys.argv[1:]:
    with open(name, encoding="utf-8", errors="strict") as f:
        page = Page(f.read())
    for what in page.wrong[:20]:
        print("%s: %s" % (name, what))
    bad += len(page.wrong)
    if not page.count.get("main") or not page.count.get("title"):
        print("%s: no main or no title" % name)
        bad += 1
sys.exit(bad != 0)
