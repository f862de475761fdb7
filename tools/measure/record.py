"""The record of a run: JSON with every single run, Markdown with the tables and the bars, and the summary that README.md
quotes between its two marks.
"""

import json, os, platform, re, sys

import rivals
from measure import rows

BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"


def machine():
    return {"kernel": platform.release(), "cpu": rivals.cpu_model(), "cores": os.cpu_count()}


class Record:
    """A run as far as it is known, written after every row; nothing is written without a folder."""

    def __init__(self, head, modules, folder, chosen):
        self.head, self.modules, self.folder = head, modules, folder
        # One row alone is no record of all, and does not take the place of one.
        self.alone = len(chosen) == 1
        self.stem = f"{head['date']}-{chosen[0] if self.alone else 'versus'}"
        self.path = folder / f"{self.stem}.md" if folder else None

    def write(self):
        plots = {row["name"]: self.of(row, "plots") for row in self.head["rows"]}
        text = self.markdown({name: [slug for slug, _ in some] for name, some in plots.items()})
        for row in self.head["rows"]:
            row["verdicts"] = [dict(zip(("what", "measured", "bar", "holds"), verdict)) for verdict in self.of(row, "verdicts")]
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{self.stem}.json").write_text(json.dumps(self.head, indent=1) + "\n")
        self.path.write_text(text)
        for name, some in plots.items():
            for slug, svg in some:
                (self.folder / self.plot_name(name, slug)).write_text(svg)

    def of(self, row, what):
        """What a row makes of its runs; a row that cannot, with few runs, has failed and is named."""
        function = getattr(self.modules[row["name"]], what, None)
        if function is None or not row["runs"]:
            return []
        try:
            return function(row["runs"])
        except Exception as error:
            row["failed"] = row["failed"] or f"{what}: {type(error).__name__}: {error}"
            return []

    def plot_name(self, row, slug):
        return f"{self.stem}-{slug}.svg" if self.alone else f"{self.stem}-{row}-{slug}.svg"

    def markdown(self, plots):
        head = self.head
        parts = [
            "# Side by side", "",
            f"{head['date']}, Linux {head['kernel']}, {head['cpu']}, {head['cores']} cores; seeder on core "
            f"{head['seeder_core']}, load on core {head['load_core']}; load average at the start "
            f"{head['load_average']:.1f}. Subjects alternate; medians, with least and most in brackets.", "",
            f"    {head['command']}", "", BEGIN, "", *self.summary(plots), "", END, ""]
        for row in head["rows"]:
            module = self.modules[row["name"]]
            parts += [f"## {module.TITLE}", ""]
            if hasattr(module, "ABOUT"):
                parts += [module.ABOUT.strip(), ""]
            for caption, header, lines in self.of(row, "tables"):
                parts += [caption, "", *table(header, lines), ""]
            parts += [line for slug in plots[row["name"]] for line in (self.image(row["name"], slug), "")]
            verdicts = self.of(row, "verdicts")
            parts += [f"- {what}: {figure(measured)}; bar: {bar}: {word(holds)}" for what, measured, bar, holds in verdicts]
            if row["failed"]:
                parts += ["", f"This row did not come to its end: {row['failed']}"]
            parts += [""]
        parts += ["## What was measured", ""]
        parts += [f"- {name}: {version}" for name, version in head["versions"].items()]
        parts += [f"- {name} left out: {why}" for name, why in head["left_out"].items()]
        return "\n".join(parts).rstrip() + "\n"

    def image(self, row, slug):
        return f"![{self.modules[row].TITLE}: {slug.replace('-', ' ')}]({self.plot_name(row, slug)})"

    def summary(self, plots):
        """What README.md quotes: the short tables of rows that have a `summary`, and every bar."""
        head, lines = self.head, []
        for row in head["rows"]:
            short = self.of(row, "summary")
            if short:
                caption, header, cells = short
                lines += [caption, "", *table(header, cells), ""]
                lines += [line for slug in plots[row["name"]][:1] for line in (self.image(row["name"], slug), "")]
        judged = [[self.modules[row["name"]].TITLE, what, figure(measured), bar, word(holds)]
                  for row in head["rows"] for what, measured, bar, holds in self.of(row, "verdicts")]
        if judged:
            lines += ["What each path has to reach, as ratios of medians in one run:", "",
                      *table(["path", "what", "measured", "bar", "verdict"], judged), ""]
        lines += [f"Measured on {head['date']}, Linux {head['kernel']}, {head['cpu']}, {head['cores']} cores: "
                  f"[the whole record]({self.stem}.md), with versions, ranges and command."]
        return lines


def table(header, lines):
    return ["| " + " | ".join(header) + " |", "|---" * len(header) + "|",
            *("| " + " | ".join(map(str, line)) + " |" for line in lines)]


def figure(measured):
    # A ratio without figures is no number.
    if measured is None or measured != measured:
        return "-"
    return f"{measured:.2f}" if isinstance(measured, float) else str(measured)


def word(holds):
    return {True: "holds", False: "MISSED", None: "not judged"}[holds]


def newest(folder):
    """The Markdown of the newest record, or None."""
    found = sorted(path for path in folder.glob("*-versus.md") if re.fullmatch(r"\d{4}-\d\d-\d\d-versus\.md", path.name))
    return found[-1] if found else None


def between(text):
    before, _, rest = text.partition(BEGIN)
    middle, _, after = rest.partition(END)
    return before, middle, after


def update_readme(readme, folder):
    path = newest(folder)
    if path is None:
        print(f"versus: no record in {folder}", file=sys.stderr)
        return 1
    _, summary, _ = between(path.read_text())
    # Links of the record start where it lies.
    folder_name = path.parent.relative_to(readme.parent).as_posix()
    before, _, after = between(readme.read_text())
    readme.write_text(before + BEGIN + summary.replace("](", f"]({folder_name}/") + END + after)
    return 0
