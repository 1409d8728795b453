"""Data sets, and the batches that training makes of them.

`open_source` opens what a path or a name stands for, and `report` says what it holds.

* Pictures: `archives` (folders, zips, tars), `parquet` (tables) and `patterns` find the files; `picture_files`
  and `splits` choose among them; `labelling` and `label_files` find their classes; `decoding` reads one file;
  `pictures` is the source.
* Tables of numbers and words: `tables` reads csv, tsv and parquet.
* Arrays: `array_files` reads files; `axes` finds which axis is which, `values` which value is black;
  `arrays` makes sources, which are `tensors`.
* Python: `dataset` takes tensors and PyTorch's Datasets. `builtin` has the data sets with a name.
* Latents: `encoding` writes them, `latents` reads them.
* All: `config` has the settings, `classes` the rules for labels, `source` what training asks for, and `batches`
  the order of the samples.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
