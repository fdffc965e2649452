"""What a trained model can do: measured, shown, stored or put to use."""
