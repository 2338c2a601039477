"""The layers in C++, in one library for each kind of processor.

`kinds.py` names the kinds, `compiling.py` compiles the library of one, `library.py` finds and opens it, `choice.py`
chooses the best one that runs here, and `native.py` runs it. `layout.h` draws how the kernels lay out memory;
`layers.h` has their loop.
"""
