"""What the data is.

The promise of every file here, none of which imports Keras:

    Options                 a pydantic model: what `encode:` in params.yaml takes, with defaults
    RAW                     what a raw input is: a `file` (its bytes), `text`, or a `row` of a table
    CELL                    (width, height) in inches of one example in a picture of many
    read(data, spool)       the dataset at `data.path` as a table: id, input, label, maybe split, and every
                            column that a slice can name (src.dataset)
    digest(raw)             a hash of one example's content, after checking that it can be read;
                            raises BadExampleError with the reason
    Encoder                 turns one raw input into the array that the network takes:
        .learn(raws, options)   from the training split's raw inputs, which can be gone through repeatedly
        .encode(raw)            an array of .shape and .dtype; raises BadExampleError
        .layers                 what every network begins with: Keras layers by name (src.network.Input)
        .vocabulary             the token that each number stands for; empty where inputs are no tokens
        .save(folder), .load(folder)
                                all it has learned: encoder.json, and tokenizer.json where it has one
        .draw(axes, array)      draws one encoded input on matplotlib axes, as the network sees it
        .describe(array)        the same in words, {column: text}, for what people read rather than look at;
                                empty for what they look at

A task whose near duplicates can be told also exports `fingerprint(inputs)`: of encoded inputs, (examples,)
uint64, with few bits different where two of them look alike.

An encoder that finds its training data odd says so in `.warnings`, a list of sentences.

A task whose raw inputs are files, or text that may lie in files, names their `SUFFIXES`, and in `COLUMNS` the
usual names of the column of a table that holds them: src.predict finds inputs by both. Predicting imports a
task and loads its encoder without pandas and pydantic (src.options), so neither is imported at its top;
`.load` takes whatever has `folder / name` with `.read_text()`, for it may be in an archive.

A raw input is what `src.dataset.content` gives for a cell of the `input` column: bytes for a file,
a dictionary of its columns for a row of a table.
"""
