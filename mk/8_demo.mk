##@ Demonstration
.PHONY: demo

demo_settings := DATA=demo/data RUNS=demo/runs SUBMISSIONS=demo/submissions SOURCE=demo/archive CONFIGS=configs/demo \
  MEMBERS='demo_unet demo_three_class' SPLIT_INTO=2 WORKERS=0
demo_scored := $(foreach name,otsu demo_unet demo_three_class ensemble,demo/submissions/$(name).csv)
# two jobs at once, unless `make -j` says how many
demo_jobs = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j2)

demo: demo/archive/stage1_solution.csv  ## the whole pipeline on generated images, in a few minutes
	@echo "the whole pipeline on generated images: some four minutes on two cores"
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory $(demo_jobs) $(demo_settings) $(demo_scored)
	@$(MAKE) --no-print-directory $(demo_settings) score
	@$(MAKE) --no-print-directory $(demo_settings) leaderboard
	@$(MAKE) --no-print-directory $(demo_settings) REPORT=demo/report.html report
	@cat mk/demo_end.txt

demo/archive/stage1_solution.csv: | $(ready)
	$(say) "generate demo/archive"
	$(quiet)$(python) scripts/generate.py --out demo/archive
