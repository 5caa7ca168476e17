"""The plot of docs/forgetting.md: what is lost of the old skill against what is gained of the new one, a panel a scale, a curve an arm."""
import math
import os
import sys
from html import escape

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "recipe"))
from results_plot import Panel, ticks  # noqa: E402

WIDTH, HEIGHT, LEFT, TOP, ROW, LEAST = 470, 420, 80, 50, 15, 3e-4
# by how a method's name begins or ends; the first that fits
FAMILIES = [("full fine-tuning", "#000000"), ("WiSE-FT", "#d55e00"), ("Control LLM", "#0072b2"), ("CoFiTune", "#009e73"), ("all layers", "#cc79a7"),
            ("LoRA", "#e69f00"), ("replay", "#7a3b00"), ("L2", "#56b4e9"), ("", "#777777")]
DASHES = ["", "6 2", "2 2", "8 2 2 2", "1 3", "10 4", "4 4", "12 2 2 2 2 2", "3 6", "7 7"]


def color(name):
    return next(c for start, c in FAMILIES if name.startswith(start))


def styled(arms):
    """(arm, color, dashes): within a family each its own dashes; what keeps most comes first."""
    used, out = {}, []
    for x in sorted(arms, key=lambda x: x["forgets"] if x["forgets"] is not None else 9):
        c = color(x["method"])
        out.append((x, c, DASHES[used.get(c, 0) % len(DASHES)]))
        used[c] = used.get(c, 0) + 1
    return out


def height(lost):
    """On the log scale; what is lost less than LEAST, or won, lies on the lower edge."""
    return math.log10(max(lost, LEAST))


def clipped(points, top):
    """Up to where the curve leaves the panel for the first time."""
    out = []
    for (u0, v0), (u1, v1) in zip(points, points[1:]):
        out.append((u0, v0))
        if v1 > top:
            return out + [(u0 + (u1 - u0) * (top - v0) / (v1 - v0), top)]
    return out + points[-1:]


def panel(run, arms, x):
    """SVG of one scale, and how far down it goes."""
    start, gains, matched = run["new_nats_a_token"], run["full_gains"], run["matched_at"]
    curves = {a["method"]: [((start - new) / gains, height(old)) for new, old in a["curve"]] for a in arms}
    low, top = math.log10(LEAST), height(2 * max(a["forgets"] or LEAST for a in arms)) + 0.1
    p = Panel(x, TOP, (0.0, 1.04), (low, top), WIDTH, HEIGHT)
    at, _ = p.at(matched, low)
    p.out.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{TOP + HEIGHT}" stroke="#bbb" stroke-dasharray="3 3"/>')
    for i, (a, c, dashes) in enumerate(styled(arms)):
        where = " ".join(f"{u:.1f},{v:.1f}" for u, v in (p.at(*q) for q in clipped(curves[a["method"]], top)))
        style = f'stroke="{c}" stroke-width="1.5"' + (f' stroke-dasharray="{dashes}"' if dashes else "")
        p.out.append(f'<polyline points="{where}" fill="none" {style}><title>{escape(a["method"])}</title></polyline>')
        if a["forgets"] is not None:
            p.point(matched, height(a["forgets"]), c, f'{a["method"]}: {a["forgets"]:.4f} nats a byte lost at {100 * matched:.0f} %', 2.6)
        y, text = TOP + 6 + ROW * i, f'{a["forgets"]:.4f}' if a["forgets"] is not None else "–"
        x0, slant = x + WIDTH + 16, ' font-style="italic"' if a["control"] else ""
        p.out.append(f'<line x1="{x0}" y1="{y}" x2="{x0 + 30}" y2="{y}" {style}/><text x="{x0 + 36}" y="{y + 4}">{text}</text>'
                     f'<text x="{x0 + 84}" y="{y + 4}"{slant}>{escape(a["method"])}</text>')
    marks = [(k, f"{10.0 ** k:g}") for k in range(math.ceil(low), math.floor(top) + 1)]
    p.axes(ticks(0.0, 1.04), marks, "gained of the new skill, as a share of what full fine-tuning gains", "lost of the old skill, nats a byte (log scale)", run["scale"])
    return p.out, TOP + max(HEIGHT + 50, ROW * len(arms) + 20)


def plot(data):
    """SVG: a scale under the other, each with its curves' names and what they lose where they reach the matched score."""
    out, y = [], 0
    for run in data["runs"]:
        svg, height = panel(run, [a for a in data["arms"] if a["scale"] == run["scale"]], LEFT)
        out += [f'<g transform="translate(0 {y})">', *svg, "</g>"]
        y += height
    width = LEFT + WIDTH + 16 + 84 + 420
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" font-family="sans-serif" font-size="12">\n'
            f'<rect width="{width}" height="{y}" fill="#fff"/>\n' + "\n".join(out) + "\n</svg>\n")
