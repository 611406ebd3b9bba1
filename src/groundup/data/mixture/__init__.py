"""Several corpora mixed by weight: how much of each is in a batch is a pure function of the step.

part.py         a [[data.mixture]] table: a corpus and its weight
weights.py      weights along a run, as integer shares of each update
counts.py       from shares to whole samples
batches.py      the batches
documents.py    the documents behind them
preparation.py  one tokenizer and the token files of every part
"""
