"""The plot of docs/results.md: what is forgotten against what is kept, a line an objective, a point a strength."""
import math
from html import escape

WIDTH, HEIGHT, LEFT, TOP, GAP = 400, 250, 70, 40, 80
COLORS = {"npo": "#0072b2", "npo-wide": "#7a3b00", "graddiff": "#d55e00", "idk": "#009e73", "kl": "#cc79a7", "simnpo": "#56b4e9", "dpo": "#e69f00", "ga": "#555555", "distil-wide": "#c00000", "late-wide": "#000000"}
LEAST_QUALITY = 1e-20


class Panel:
    """A rectangle with two linear scales."""

    def __init__(self, x, y, xs, ys, width=WIDTH, height=HEIGHT):
        self.x, self.y, self.xs, self.ys, self.width, self.height = x, y, xs, ys, width, height
        self.out = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="#888"/>']

    def at(self, u, v):
        def scaled(t, ends):
            return (min(max(t, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0])
        return self.x + self.width * scaled(u, self.xs), self.y + self.height * (1 - scaled(v, self.ys))

    def box(self, u, v, fill):
        (x0, y1), (x1, y0) = self.at(u[0], v[0]), self.at(u[1], v[1])
        self.out.append(f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" fill="{fill}"/>')

    def line(self, points, color):
        where = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(u, v) for u, v in points))
        self.out.append(f'<polyline points="{where}" fill="none" stroke="{color}" stroke-width="1.6"/>')

    def point(self, u, v, color, title, size=3.2):
        x, y = self.at(u, v)
        self.out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{color}"><title>{escape(title)}</title></circle>')

    def square(self, u, v, color, title, size=7):
        x, y = self.at(u, v)
        self.out.append(f'<rect x="{x - size / 2:.1f}" y="{y - size / 2:.1f}" width="{size}" height="{size}" fill="{color}"><title>{escape(title)}</title></rect>')

    def label(self, u, v, text, color="#222"):
        x, y = self.at(u, v)
        self.out.append(f'<text x="{x + 6:.1f}" y="{y - 5:.1f}" fill="{color}">{escape(text)}</text>')

    def axes(self, xticks, yticks, xname, yname, title):
        for t in xticks:
            x, _ = self.at(t, self.ys[0])
            self.out.append(f'<text x="{x:.1f}" y="{self.y + self.height + 16}" text-anchor="middle">{t:g}</text>')
        for t, name in yticks:
            _, y = self.at(self.xs[0], t)
            self.out.append(f'<text x="{self.x - 6}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        middle = self.y + self.height / 2
        self.out.append(f'<text x="{self.x + self.width / 2}" y="{self.y + self.height + 34}" text-anchor="middle">{xname}</text>')
        self.out.append(f'<text x="{self.x - 46}" y="{middle}" text-anchor="middle" transform="rotate(-90 {self.x - 46} {middle})">{yname}</text>')
        self.out.append(f'<text x="{self.x + self.width / 2}" y="{self.y - 10}" text-anchor="middle" font-weight="bold">{escape(title)}</text>')


def ends(values):
    lo, hi = min(values), max(values)
    pad = 0.08 * (hi - lo) or 0.05
    return lo - pad, hi + pad


def ticks(lo, hi):
    step = 10 ** math.floor(math.log10((hi - lo) / 2))
    step *= next(k for k in (1, 2, 5, 10) if (hi - lo) / (k * step) <= 6)
    return [round(k * step, 10) for k in range(math.ceil(lo / step), math.floor(hi / step) + 1)]


def log_quality(r):
    return math.log10(max(r["forget_quality"], LEAST_QUALITY))


def said(r):
    return f"utility {r['utility']:.3f}, ROUGE-L {r['rouge_forget']:.3f}, forget quality {r['forget_quality']:.2g}"


def draw(panel, rows, tuned, zero, twin, key):
    """Lines of one host, and the host itself tuned; key: a row's height in the panel."""
    for objective in dict.fromkeys(r["objective"] for r in rows):
        of = sorted((r for r in rows if r["objective"] == objective and r["seed"] == 0), key=lambda r: r["alpha"])
        color = COLORS.get(objective, "#000")
        panel.line([(zero["utility"], key(zero))] + [(r["utility"], key(r)) for r in of], color)
        for r in (r for r in rows if r["objective"] == objective):
            panel.point(r["utility"], key(r), color, f"{objective}, alpha {r['alpha']:g}, seed {r['seed']}: {said(r)}", 3.2 if r["seed"] == 0 else 2.2)
    for r in tuned:
        panel.square(r["utility"], key(r), COLORS.get(r["objective"], "#000"), f"{r['objective']}, the host itself tuned: {said(r)}")
    panel.point(zero["utility"], key(zero), "#000", "alpha 0", 4)
    panel.label(zero["utility"], key(zero), "alpha 0")
    panel.label(twin["utility"], key(twin), "twin")
    panel.point(twin["utility"], key(twin), "#999", "twin", 4)


def unlearning(data):
    """SVG: a column a host; above the forget quality, below ROUGE-L on the forget set, both against the model utility."""
    hosts = list(dict.fromkeys(r["host"] for r in data["unlearning"]))
    beside = {(r["host"], r["kind"]): r for r in data["unlearning_beside"]}
    out = []
    for i, host in enumerate(hosts):
        rows, zero = [r for r in data["unlearning"] if r["host"] == host], beside[host, "alpha 0"]
        twin = {**beside[host, "twin"], "forget_quality": 1.0}
        tuned = [r for r in data["unlearning_beside"] if r["host"] == host and r["kind"] == "tuned"]
        every, x = [*rows, *tuned, zero, twin], LEFT + i * (WIDTH + GAP)
        keep = (0.95 * zero["utility"], 1.05 * zero["utility"])
        us = ends([r["utility"] for r in every] + list(keep))
        for row, (key, good, name) in enumerate((
                (log_quality, (math.log10(0.05), 0.0), "forget quality (log scale)"),
                (lambda r: r["rouge_forget"], (twin["rouge_forget"] - 0.05, twin["rouge_forget"] + 0.05), "ROUGE-L on the forget set"))):
            vs = ends([key(r) for r in every] + list(good))
            p = Panel(x, TOP + row * (HEIGHT + GAP), us, vs)
            p.box(keep, good, "#e2f2e2")
            draw(p, rows, tuned, zero, twin, key)
            marks = [(t, f"1e{t:g}" if row == 0 else f"{t:g}") for t in ticks(*vs)]
            p.axes(ticks(*us), marks, "model utility", name, host + ("" if zero["seen"] else " (unseen)"))
            out += p.out
    width, height = LEFT + len(hosts) * (WIDTH + GAP), TOP + 2 * (HEIGHT + GAP) + 20
    for k, objective in enumerate(dict.fromkeys(r["objective"] for r in data["unlearning"])):
        x = LEFT + 90 * k
        out.append(f'<circle cx="{x}" cy="{height - 16}" r="5" fill="{COLORS.get(objective, "#000")}"/><text x="{x + 9}" y="{height - 12}">{objective}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">\n'
            f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(out) + "\n</svg>\n")
