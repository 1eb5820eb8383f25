"""Broken files of every format that is read, and what may become of them.

A case is a file, or a tree of files, of one subject, made of a seed and a number (`case`), with
changes (`changes`) to one of whole files (`corpus`). It may be read, or refused in the way that is
documented (`limits`): by an error of the package, or a plain `ValueError`, of one line that names
the file; within a second, and in the memory that the file has and 100 MB.
"""
