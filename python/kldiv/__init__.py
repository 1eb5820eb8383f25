from kldiv import _kldiv
