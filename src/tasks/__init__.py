"""What the data is.

The promise of every file here, none of which imports Keras:

    Options                 a pydantic model: what `encode:` in params.yaml takes, with defaults
    read(data, spool)       the dataset at `data.path` as a table: id, input, label, maybe split (src.dataset)
    digest(raw)             a hash of one example's content, after checking that it can be read;
                            raises BadExampleError with the reason
    Encoder                 turns one raw input into the array that the network takes:
        .learn(raws, options)   from the training split's raw inputs
        .encode(raw)            an array of .shape and .dtype
        .to_json(), .from_json  all it has learned, as JSON
    draw(axes, array)       draws one encoded input on matplotlib axes

A task whose near duplicates can be told also exports `fingerprint(inputs)`: of encoded inputs, (examples,)
uint64, with few bits different where two of them look alike.

A raw input is what `src.dataset.content` gives for a cell of the `input` column: bytes for a file.
"""
