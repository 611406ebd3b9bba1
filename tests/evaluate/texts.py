"""Small texts in the forms of WikiText and LAMBADA."""

from __future__ import annotations

PASSAGES = [
    "In my palm is a clear stone, and inside it is a small statuette. I don't care about signs",
    'Give me a minute to change. "I can make it there on my own, Shane',
    "He looked at the two of them.\n\nShe said: no need to change, he said: no",
    "word",
    "ends with two  spaces",
    "Éclair is a word, and so is naïve",
    "the stone is a stone is a stone",
]
_LINES = """
= Robert <unk> =

Robert <unk> is an English film , television and theatre actor . He had a guest @-@ starring role
on the series " The Bill " in 2 @.@ 5 of 1 @,@ 200 parts ( or so ) ; it 's [ here ] , the boys ' .

= = Career = =

= = = 2000 – 2005 = = =

In 2000 he was at 12 ° north : { a set } . " Why ? " he asked ! ' No ' .
He had N roles .
= = = = Deep = = = =

= Second page =

It is = x = short .

=
= Third =
"""
# A space begins and ends each line.
WIKITEXT = "\n".join(f" {line} " if line else " " for line in _LINES.split("\n")) + "\n"
