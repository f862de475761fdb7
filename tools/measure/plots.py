"""Plots as small SVG files that can be read on light and on dark ground: figures over a few steps, or one bar for each
subject, with the range as a whisker. No scripts, no fonts of its own.
"""

import html, math, statistics

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 44, 56
# Distinguishable for most eyes on white and on black; shapes of the points tell apart what colours do not.
COLOURS = ["#e69f00", "#0072b2", "#56a8d8", "#d55e00", "#009e73", "#cc6fa5", "#8a63d2", "#9a8700", "#7f7f7f"]
STYLE = """
  .ground { fill: #ffffff } .ink { fill: #1f2328 } .line { stroke: #1f2328 } .grid { stroke: #d8dde3 }
  text { font: 13px system-ui, sans-serif } .title { font-size: 15px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .ink { fill: #e6edf3 } .line { stroke: #e6edf3 } .grid { stroke: #30363d }
  }
"""


def over_steps(title, step_label, label, steps, series, logarithmic=False):
    """Lines over `steps`; `series` is {name: {step: values of its runs}}. The first one is drawn thick."""
    values = [value for points in series.values() for some in points.values() for value in some]
    if not values:
        return empty(title)
    scale = Scale(values, logarithmic)
    right = WIDTH - RIGHT
    across = lambda step: LEFT + (steps.index(step) + 0.5) * (right - LEFT) / len(steps)
    parts = frame(title, label, scale)
    for step in steps:
        parts.append(text(across(step), HEIGHT - BOTTOM + 20, step, "middle"))
    parts.append(text((LEFT + right) / 2, HEIGHT - 12, step_label, "middle"))
    names = []
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        placed = [(across(step), sorted(points[step])) for step in steps if points.get(step)]
        if not placed:
            continue
        middles = [(x, scale.height(statistics.median(some))) for x, some in placed]
        width = 3 if number == 0 else 1.6
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in middles)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        for (x, y), (_, some) in zip(middles, placed):
            parts += [whisker(x, scale.height(some[0]), scale.height(some[-1]), colour), point(x, y, number, colour)]
        names.append((middles[-1][1], name, number, colour))
    return whole(title, parts + legend(names, right))


def bars(title, label, figures, logarithmic=False):
    """One bar for each of `figures`, {name: values of its runs}."""
    figures = {name: sorted(values) for name, values in figures.items() if values}
    if not figures:
        return empty(title)
    scale = Scale([value for values in figures.values() for value in values], logarithmic)
    parts, right = frame(title, label, scale, WIDTH - 24), WIDTH - 24
    step = (right - LEFT) / len(figures)
    for number, (name, values) in enumerate(figures.items()):
        x, y = LEFT + (number + 0.5) * step, scale.height(statistics.median(values))
        colour, width = COLOURS[number % len(COLOURS)], min(step * 0.6, 60)
        parts.append(f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" '
                     f'height="{HEIGHT - BOTTOM - y:.1f}" fill="{colour}" fill-opacity="0.75"/>')
        parts.append(whisker(x, scale.height(values[0]), scale.height(values[-1]), None))
        parts.append(text(x, y - 8, shown(statistics.median(values)), "middle"))
        parts.append(text(x, HEIGHT - BOTTOM + 18 + 16 * (number % 2 if len(figures) > 6 else 0), name, "middle"))
    return whole(title, parts)


class Scale:
    """Heights of values, from nothing or from the decade below the least."""

    def __init__(self, values, logarithmic):
        # A logarithm knows no zero; what took no measurable time lies at the ground.
        positive = [value for value in values if value > 0] or [1.0]
        self.logarithmic = logarithmic
        if logarithmic:
            self.low = step_below(min(positive))
            self.high = max(step_above(max(positive)), self.low * 2)
            self.ticks = [factor * 10.0**power for power in range(-9, 12) for factor in (1, 2, 5)]
        else:
            self.low, most = 0.0, max(positive) * 1.08
            unit = 10 ** math.floor(math.log10(most))
            step = next(unit * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if most / (unit * part) <= 7)
            self.high = math.ceil(most / step) * step
            self.ticks = [step * number for number in range(int(round(self.high / step)) + 1)]
        self.ticks = [tick for tick in self.ticks if self.low <= tick * 1.0001 and tick <= self.high * 1.0001]

    def height(self, value):
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = value / self.high
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def step_below(value):
    unit = 10 ** math.floor(math.log10(value))
    return max(unit * factor for factor in (1, 2, 5) if unit * factor <= value * 1.0001)


def step_above(value):
    unit = 10 ** math.floor(math.log10(value))
    return min(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= value * 0.9999)


def frame(title, label, scale, right=WIDTH - RIGHT):
    parts = [f'<text class="ink title" x="{LEFT}" y="24">{html.escape(title)}</text>']
    for tick in scale.ticks:
        y = scale.height(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(text(LEFT - 8, y + 4, shown(tick), "end"))
    ground, middle = HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2
    parts.append(f'<line class="line" x1="{LEFT}" y1="{ground}" x2="{right}" y2="{ground}"/>')
    parts.append(f'<text class="ink" text-anchor="middle" transform="translate(18 {middle:.0f}) rotate(-90)">'
                 f'{html.escape(label)}</text>')
    return parts


def legend(names, right):
    """The names beside the ends of their lines, moved apart where these are close."""
    parts, last = [], TOP - 18
    names = sorted(names)
    spare = HEIGHT - BOTTOM
    for place, (y, name, number, colour) in enumerate(names):
        last = max(last + 18, min(y, spare - 18 * (len(names) - 1 - place)))
        parts += [point(right + 14, last, number, colour), text(right + 26, last + 4, name, "start")]
    return parts


def point(x, y, number, colour):
    shape = number % 3
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'
    if shape == 1:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>'
    return f'<path d="M{x:.1f} {y - 5.5:.1f} l5.5 9.5 h-11 z" fill="{colour}"/>'


def whisker(x, top, bottom, colour):
    ink = f'stroke="{colour}"' if colour else 'class="line"'
    return (f'<path d="M{x - 4:.1f} {top:.1f} h8 M{x:.1f} {top:.1f} V{bottom:.1f} M{x - 4:.1f} {bottom:.1f} h8" '
            f'{ink} fill="none"/>')


def text(x, y, content, anchor):
    return f'<text class="ink" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(str(content))}</text>'


def shown(value):
    if value == 0:
        return "0"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def empty(title):
    return whole(title, [text(WIDTH / 2, HEIGHT / 2, "nothing was measured", "middle")])


def whole(title, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'role="img" aria-label="{html.escape(title)}">\n<style>{STYLE}</style>\n'
            f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="6"/>\n' + "\n".join(parts) + "\n</svg>\n")
