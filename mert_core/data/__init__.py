"""The stored formats and their only readers. Stages that make data write these formats; all others read them here.

A corpus or a probe set is a folder:

    shards/00000.pcm …     int16 mono at 24 kHz, track after track, in whole frames of 320 samples       shards
    manifest.parquet       one row per track: id, hash, length, split, piece, artist, shard, offset      manifest
    labels.parquet, …      what scores say about their tracks: labels, notes, beats                      track
    quarantine.parquet     files of the source that could not be used, with reasons                      track
    record.json            the stage, its inputs and parameters, and a hash of every file                record

A teacher's targets are another folder, with the same tracks in the same order:

    shards/00000.codes …   uint16 codes, or float16 spectra (`.frames`), one row per 320-sample frame    targets
    index.parquet          shard, offset and frames of each track                                        targets
    shards.json            the card: teacher, kind of target (`target_kinds`), checksums                 targets

Reading goes like this. `Corpus.open` reads the manifest's numbers, 21 bytes per track, and checks the shards' sizes.
`sampler` says which crop comes when, as (row, offset in samples), for millions of tracks and without a list of crops.
`Corpus.crops` copies those crops out of memory-mapped shards. `TargetStore.read` gives the targets of the same frames,
from offset / 320 on, because codes and samples lie on one grid. Shards may also lie on an object store (`remote`); then
crops are read as byte ranges, a whole batch at once.

The other files serve the stages that write: `tables` is Parquet, in pieces where a table may be larger than memory;
`hashes` remembers the hashes of source files that were not touched since; `statistics` counts what a corpus holds.
"""
