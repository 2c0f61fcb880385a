"""Who watches a training.

The promise of every file here, none of which imports Keras, nor a monitor's own package before it starts:

    Options             a pydantic model: what `monitors: [{NAME: {…}}]` takes, with defaults; no secrets,
                        which are in environment variables
    looks(options)      whether it wants snapshots of the network, which cost the training a moment
    start(options, run) says that a training begins (watching.Run), or goes on; returns an object with
        .id                     what names the run there, for a training that goes on after it was killed
        .log(record)            an epoch has ended: its record in history.json
        .look(epoch, snapshot)  if it `looks`: the network at that moment (watching.Snapshot), though not
                                of each epoch where these are short
        .end(status)            the training has `finished`, or has `failed`

All of it is called in a thread of the monitor's own, one call at a time. Whatever it raises becomes a warning
and ends this monitor, never the training; how long it takes is its own affair, but it is not waited for.
What a user can put right is a `UserError`.
"""
