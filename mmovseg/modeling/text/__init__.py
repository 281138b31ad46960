"""Text side: tokenizers, prompts, vocabulary embeddings."""
