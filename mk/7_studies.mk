##@ Studies under one budget
# Generated: the trainings behind the tables, and what these are made from.
.PHONY: compare learning-curve ablation

compare: $(comparisons)/compare.csv  ## the variants of configs/compare on one fold: STEPS= VARIANTS=

learning-curve: $(comparisons)/learning_curve.csv  ## the small UNet on more and more images: COUNTS= SEEDS=

ablation: $(ablation)/README.md  ## what each step adds, out of fold and on unseen modalities; ABLATION_STEPS=
