"""Networks over text: BERT and its kin, GPT-2, and Llama-style decoders, with Hugging Face's parameter names."""
