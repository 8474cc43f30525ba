##@ Studies under one budget
# Generated: the trainings behind the tables, and what these are made from.
.PHONY: screen compare learning-curve ablation

# The two networks at once, each with half of the cores; the reference is kept. The comparison is made every time.
half_of_the_cores = $$(( ($$(getconf _NPROCESSORS_ONLN) + 1) / 2 ))
two_jobs = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j2)

screen: | $(ready)  ## an idea judged in minutes, on one fold: EXP=<config> AGAINST=unet_plain STEPS=
	@OMP_NUM_THREADS=$(half_of_the_cores) $(MAKE) --no-print-directory $(if $(v),,-s) $(two_jobs) $(screened_own) \
	  $(screened_reference)
	$(quiet)$(python) scripts/screen.py --own $(screened_own) --reference $(screened_reference) \
	  --processed $(data)/processed --page $(screen_page)

compare: $(comparisons)/compare.csv  ## the variants of configs/compare on one fold: STEPS= VARIANTS=

learning-curve: $(comparisons)/learning_curve.csv  ## more and more images, scored on seen and unseen sources: STEPS= COUNTS= SEEDS=

ablation: $(ablation)/README.md  ## what each step adds, out of fold and on unseen modalities; ABLATION_STEPS=
