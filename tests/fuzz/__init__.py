"""Bad input: real files, damaged at random, through the doors that users use.

Whatever is read, one of three things happens: it is what it was before the damage, it is something
else that is valid, or a documented error names the file in one line. Everything else is a defect:
another exception, silently fewer tokens or lines, a hang, code executed.

`python -m tests.fuzz --minutes 10` runs a campaign; `test_fuzz.py` a few cases of each target. A
case is its target's name and a number: `python -m tests.fuzz --target recipes --case 17` repeats
it.
"""
