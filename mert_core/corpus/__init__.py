"""Where music comes from: a folder of files or performed scores, into PCM shards and a checked manifest."""
