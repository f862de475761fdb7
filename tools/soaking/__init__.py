"""What tools/soak is made of: the seeder and what is watched of it (seeder.py), who comes and goes (clients.py), the
record (record.py), and the run itself (command.py). Standard library only.
"""
