"""Pre-training: from stored music and targets to a checkpoint. This is what flows through the room, in order.

    Corpus, TargetStore, Teacher    what earlier stages made, opened by `run.open_inputs`
    CropSource                      cuts a global batch: crops, masks, mixtures, codebooks     batches, corruption
    Loader                          prepares a worker's share of each update in threads        batches
    Batch                           noisy and clean crops, mask, stored targets                targets
    TargetSet                       gives the targets, stored or computed by frozen teachers   targets
    Objective                       encoder and heads; the loss and its terms by name          loss
    Engine                          runs it: precision, recomputation, replicas or shards      distributed
    judge_update, judge_model       decide whether an update is made, skipped or undone        health
    Checkpoints                     writes resume states and returns to them                   checkpoint
    artifacts                       model, heads, curve, example, and a card with the cost     run, cost, model_card

`trainer.Trainer.train` is the loop and reads top to bottom. `run.work` does one worker's whole share of a run, and a
`run.Job` is all that the worker is given. `stage.run` makes the job from the parameters, then calls `work` in this
process, or through `ray_train` in as many processes as the run has workers. A sweep's trial calls it in its own.

Three promises hold the room together, and most of its tests are about them:

- A run that is killed and started again ends with the same bytes. That is why no random generator keeps running: crops,
  masks and mixtures are functions of (seed, epoch, index), dropout and layer drop of (seed, step, rank). A resume state
  holds weights, optimizer and a few numbers.
- The number of workers does not change what is learned. That is why a batch is defined globally and each worker cuts
  its share of it. The loss is a sum over masked frames, divided by the masked frames of all workers.
- A fault of gradient or model is met as the parameters say, and never costs the last good state. That is why an update
  is judged before it is made, the model before a state is written, and a state is written whole or not at all.
"""
