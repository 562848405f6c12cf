"""How nano's weights were trained and judged; not needed to use them."""
