"""Questions about a guest's page tables, over any memory that holds them.

The functions here start no process.  They take a memory (:mod:`cosim.paging.physical`), the
translation registers (:mod:`cosim.paging.space`) and a question:

- :func:`cosim.paging.explain.explain`: each level of one walk, and why it faults;
- :func:`cosim.paging.maps.maps`: the ranges that are mapped;
- :func:`cosim.paging.find.find`: the virtual addresses of a physical one;
- :func:`cosim.paging.table_pages.table_pages`: the pages that are tables;
- :func:`cosim.paging.changes.changes`: what differs between two moments.

Answers are data; :mod:`cosim.paging.rendering` makes text and JSON of them.
"""
