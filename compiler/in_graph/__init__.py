"""Attention while a graph is made: operators that take masks and scores as texts.

A process that only loads exported programs imports ``attnc.in_graph.operators`` first.
"""
