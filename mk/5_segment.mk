##@ Your own images
.PHONY: segment finetune

segment: | $(ready)  ## IMAGES=<folder> OUT=<folder>; also WEIGHTS= CHANNEL= SCALE= MIN_AREA= MODE=best
	$(quiet)$(python) scripts/segment.py --images $(images) --out $(out) --device $(device) $(segment_flags)

segment_flags = $(if $(weights),--weights $(weights)) $(if $(channel),--channel $(channel)) \
  $(if $(pixel_size),--pixel-size $(pixel_size)) $(if $(max_pixels),--max-pixels $(max_pixels)) \
  $(if $(scale),--scale $(scale)) $(if $(mode),--mode $(mode)) $(if $(fast),--fast) $(if $(min_area),--min-area $(min_area)) \
  $(if $(max_area),--max-area $(max_area)) $(if $(keep_fibres),--keep-fibres)

finetune: | $(ready)  ## train further on your corrections: SOURCE=<folder> OUT=<file> START= MINUTES=
	$(quiet)$(python) scripts/finetune.py --folder $(source) --out $(out) --device $(device) --minutes $(or $(minutes),5) $(finetune_flags)

finetune_flags = $(if $(start),--start $(start)) $(if $(channel),--channel $(channel))
