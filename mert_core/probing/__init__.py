"""Probing: what a frozen encoder knows of music, by MARBLE's fourteen tasks and their proxies, beside two baselines.

From a task to its score:

1. A row of `tasks` says what is asked of which data set; `run.resolve` finds the data set's folder, `run.evaluate_task`
   reads its clips (sound, label, split) and hands them to the evaluator of the task's kind of answer (`evaluate`).
2. `embeddings.embeddings` cuts each sound into windows, embeds them with the frozen encoder (`embed`; `encoders` has
   everything that can be probed) and keeps float16 (rows, states, width) in shards by encoder and pooling
   (`embedding_store`). A row is the mean of a window, or a frame. Each sound is embedded once for all tasks.
3. `features.Standardized` scales rows with the training split's moments: float32 (states, rows, width).
4. `train.train_probes` trains one probe for each input (a hidden state, or the learned weighted sum), learning rate and
   seed. Probes of one seed see the same rows in the same order, so that many are one batched model
   (`probe_bank.ProbeBank`). Each keeps the weights of its best epoch on validation: `train.TrainedProbes`.
5. `selection.choose` takes the input and rate with the best validation score, averaged over seeds.
6. Before a label of the test split is read, `protocol.note_test_read` notes the choice; the same encoder is refused the
   same test set under another one.
7. The chosen probes, one per seed, predict the test split once: `results.Predictions`, (seeds, tracks, outputs).
   `metrics` scores them, `significance` gives each score its interval, `robustness` repeats it on degraded music.
8. `results.TaskResult` goes to ``scores.json``, ``layers.json``, ``robustness.json``, ``answers/`` and the tracker.

`stage` runs this as a pipeline stage and as ``mert probe``; `validation_score` stops after step 5, for sweeps. Beats
and stems take the same way with probes of their own: `beat_decoder` turns frames into beats, `separation` trains a head
per stem.

A new task is a row in `tasks` (and, for new data, a question of a data set). A new kind of answer is a member of
`tasks.TaskKind`, an `evaluate.base.Evaluator`, and its metrics with their titles in `metrics`.
"""
