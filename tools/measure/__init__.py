"""The measuring behind tools/versus: what a row is given (bench.py), the seeders and the load (seeders.py), how rows are
run (command.py), written down (record.py) and drawn (plots.py). The rows themselves lie in rows/. Standard library only.
"""
