"""One module per command of the command line; `main(arguments)` returns the exit code."""
