"""The record of a soak: Markdown with what held, JSON with every sample, and a plot of memory and descriptors."""

import json

WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 150, 80, 30, 50


def write(report, folder):
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{report['date']}-soak"
    (folder / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / f"{stem}.svg").write_text(plot(report["samples"]))
    path = folder / f"{stem}.md"
    path.write_text(markdown(report, f"{stem}.svg"))
    return path


def markdown(report, plot_name):
    served, cpu = report["served_bytes"], report["cpu_seconds"]
    lines = [
        "# A seeder at full load while clients come and go", "",
        f"{report['date']}, Linux {report['kernel']}, {report['cpu']}, {report['cores']} cores; {report['version']}; "
        f"one worker on core {report['seeder_core']}, all clients on core {report['load_core']}, on loopback in a network "
        "namespace of its own.", "",
        f"    {report['command']}", "",
        f"In {report['seconds']:.0f} seconds {served / 2**30:.1f} GiB were served with {cpu:.0f} CPU seconds; at most "
        f"{report['connections_max']} connections at a time.", "",
        "| what | measured | bar | |", "|---|---|---|---|"]
    lines += [f"| {what} | {measured} | {bar} | {'holds' if holds else 'MISSED'} |"
              for what, measured, bar, holds in report["verdicts"]]
    lines += ["", f"![Anonymous memory and descriptors over time]({plot_name})", "", "Who came:", ""]
    lines += [f"- {what}: {count}" for what, count in sorted(report["counts"].items())]
    waited = report["waited_seconds"]
    lines += ["", "What connections waited for, by the seeder's own account, in seconds added up over connections: "
              + ", ".join(f"{cause} {seconds:.0f}" for cause, seconds in waited.items()) + "."]
    lines += ["", "Histograms of the worker: ", ""]
    lines += [f"- {name}: {numbers}" for name, numbers in report["histograms"].items()]
    if report["complaints"]:
        lines += ["", "Complaints:", ""] + [f"- {complaint}" for complaint in report["complaints"][:50]]
    return "\n".join(lines) + "\n"


def plot(samples):
    curves = [("RssAnon, MiB", [sample["anonymous"] / 2**20 for sample in samples], "#1f77b4"),
              ("descriptors", [sample["descriptors"] for sample in samples], "#d62728"),
              ("MiB/s served", rates(samples), "#2ca02c")]
    seconds = [sample["seconds"] for sample in samples]
    height = TOP + len(curves) * (HEIGHT + GAP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 30}" height="{height}" '
             'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>']
    for number, (name, values, colour) in enumerate(curves):
        top, most = TOP + number * (HEIGHT + GAP), max([*values, 1]) * 1.1
        x = lambda second: LEFT + WIDTH * second / max(seconds[-1], 1)
        y = lambda value: top + HEIGHT * (1 - value / most)
        points = " ".join(f"{x(second):.1f},{y(value):.1f}" for second, value in zip(seconds, values))
        parts += [f'<text x="{LEFT}" y="{top - 8}">{name}</text>',
                  f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
                  f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
                  *(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>'
                    for value in (0, most / 2, most))]
    parts += [f'<text x="{LEFT + WIDTH}" y="{height - 30}" text-anchor="end">{seconds[-1]:.0f} s</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def rates(samples):
    pairs = zip(samples, samples[1:])
    return [0, *((b["served"] - a["served"]) / 2**20 / max(b["seconds"] - a["seconds"], 0.001) for a, b in pairs)]
