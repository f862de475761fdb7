"""One file for each row of the table of paths; a file that lies here takes part.

What a row has to offer:

    TITLE = "Cold data"          heading in the record
    def measure(bench)           generator: yields one dict for each run as soon as it is known:
                                 {"subject": "seedring", "repetition": 0, ...figures}, numbers and strings only
    def tables(runs)             list of (caption, header list, rows as lists of str)
    def verdicts(runs)           list of (what, measured as ratio, figure or text, bar as text, True, False or None)

and, where it has use for them:

    ABOUT = "..."                how it was measured, as Markdown
    SHARE = 1                    its part of the time that the whole run may take, against other rows
    def add_arguments(parser)    options of its own; they begin with the row's name and stand in bench.options
    def plots(runs)              list of (name for the file, SVG text of plots.py)
    def summary(runs)            one short table like those of `tables`, for README.md, with the first plot
    RIVALS = ("libtorrent",)     names of rivals.RIVALS and rivals.SERVERS that it looks for; they are installed beforehand

`measure` runs in a process and a network namespace of its own (lo is up, rivals.address(0) to address(15) are there)
and stops after a `yield` once its time is over: the generator is closed there, so everything that it started is ended
in a `finally`. Repetitions are the outermost loop, so that a run that is cut short still compares all subjects. With
`bench.smoke` it does the same in tiny sizes within about two seconds, without rivals, perhaps without floors.
"""

import importlib, pathlib

#: The order of the record; a row that is not named here follows in the order of names.
ORDER = ["seeding", "depth1", "zero_copy", "crowd", "latency", "cold", "many", "download", "check", "tracker", "workers", "laboratory"]


def names():
    """Every row there is, in the order of the record."""
    found = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("*.py") if path.stem != "__init__")
    return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def load(name):
    return importlib.import_module(f"measure.rows.{name}")
