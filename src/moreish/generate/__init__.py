"""From logits to text: filters, and the engine that turns prompts into streams of tokens."""
