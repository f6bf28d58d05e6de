"""`python -m akbypass.cli` is the command `akbypass`."""

from akbypass.cli import main

main()
