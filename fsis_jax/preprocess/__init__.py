"""What training and inference do alike to images, references and instances before a network sees them."""
