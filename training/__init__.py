"""Train what ships in `adapter/`: the embedder's LoRA, the retrieval calibration and the language model's LoRA."""
