##@ Demonstration
.PHONY: demo

demo_settings := DATA=demo/data RUNS=demo/runs SUBMISSIONS=demo/submissions SOURCE=demo/archive CONFIGS=configs/demo \
  MEMBERS='demo_unet demo_three_class' SPLIT_INTO=2 WORKERS=0
# two jobs at once, unless `make -j` says how many
demo_jobs = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j2)

demo: demo/archive/stage1_solution.csv  ## the whole pipeline on generated images, in a few minutes
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory $(demo_jobs) $(demo_settings) leaderboard score
	@cat demo/submissions/README.md
	@echo "submission: demo/submissions/ensemble.csv"
	@echo "next, on the real images and without training:  make submission WEIGHTS=weights/ensemble.json"

demo/archive/stage1_solution.csv: | $(ready)
	$(python) scripts/generate.py --out demo/archive
