"""Retrieval, captioning and question answering, measured."""
