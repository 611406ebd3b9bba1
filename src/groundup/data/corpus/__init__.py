"""From a source to its documents.

    sources.py      a name, file or folder -> its files
    builtin.py      the source called "python"
    measuring.py    lengths and content hashes of the files, remembered
    cutting.py      files -> shards, which preparing spreads over processes and resumes by
    reading.py      a shard -> documents; jsonl.py, lines.py and compression.py below it

A record (a JSONL line, a section of a long text) belongs to the shard in which it starts, so how
a source is cut into shards never changes its documents or their order.
"""
