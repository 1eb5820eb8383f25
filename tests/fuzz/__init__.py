"""Random calls of every function with every option, held to the oracle; see CONTRIBUTING.md.

    python -m fuzz --minutes 10     in the directory tests/

`subjects` lists what is called, `options` what with. `case` makes a case of a seed and a number,
`frontends` calls kldiv, `bounds` holds what it gave to the `exact` values, and `shrink` makes the
find small.
"""
