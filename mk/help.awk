# Lists the targets of the chapters, `name:  ## what it does` below `##@ chapter`, and the settings of the Makefile.
/^##@ /           { printf "\n%s\n", substr($0, 5) }
/^[a-z-]+:.*  ## / { name = $0; sub(/:.*/, "", name); sub(/.*  ## /, ""); printf "  %-16s %s\n", name, $0 }
/^#: /            { printf "  %s\n", substr($0, 4) }
/^[A-Z_]+ +=/     { if (length(line $1) > 88) { settings = settings line "\n"; line = "" } line = line "  " $1 }
END               { printf "\nSettings: make <target> NAME=value; the Makefile says what each means\n%s%s\n", settings, line }
