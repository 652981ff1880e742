"""Operator sets: the vocabularies of other libraries, written over the shared operators."""
