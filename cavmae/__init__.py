"""cavmae: the CAV-MAE model and its streaming trainer."""
