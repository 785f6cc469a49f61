# chatmux: build, tests and tools in one file. `make help` lists what it does.
#
#   MODE=release|debug|asan|tsan   which build `all`, `run`, `unit`, `e2e` take   (release)
#   BUILD=DIR                      where everything that is made goes            (build)
#   V=1                            shows whole commands          W=1   makes warnings errors

MODE   ?= release
BUILD  ?= build
PREFIX ?= /usr/local
MODES  := release debug asan tsan fuzz

ifeq ($(origin CC),default)
CC := gcc
endif
FUZZ_CC ?= clang-19
export BUILD

ifeq ($(filter $(MODE),$(MODES)),)
$(error MODE is $(MODE), but must be one of $(MODES))
endif
ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory

# --- sources --------------------------------------------------------------------------------------

SRC   := $(wildcard src/*.c src/*/*.c src/*/*/*.c)
UNIT  := $(wildcard tests/unit/*.c)
SIM   := $(wildcard tests/sim/*.c)
FUZZ  := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH := $(patsubst bench/%.c,%,$(wildcard bench/*.c))
OWN_C := $(SRC) $(UNIT) $(SIM) $(wildcard tests/fuzz/*.c tests/lib/*.c bench/*.c)
OWN_H := $(wildcard include/chatmux/*.h include/chatmux/*/*.h src/*.h src/*/*.h src/*/*/*.h \
           tests/*/*.h bench/*.h)

# --- flags ----------------------------------------------------------------------------------------

# Debian 12 keeps some libraries in a prefix of ours (third_party/README.md); elsewhere it is empty.
PRIVATE := $(CURDIR)/third_party/prefix

WARN := -Wall -Wextra -Wshadow -Wconversion -Wcast-qual -Wstrict-prototypes -Wmissing-prototypes \
        -Wvla -Wundef -Wformat=2 -Wimplicit-fallthrough $(if $(W),-Werror)
BASE := -std=gnu17 -D_GNU_SOURCE -Iinclude -Isrc -Itests -isystem $(PRIVATE)/include -pthread $(WARN)
SAN  := -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all

FLAGS_release := -O2 -g -fPIE -fstack-protector-strong -fstack-clash-protection \
                 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -ffunction-sections -fdata-sections
FLAGS_debug   := -O0 -g3
FLAGS_asan    := $(SAN) -fsanitize=address,undefined
FLAGS_tsan    := $(SAN) -fsanitize=thread
FLAGS_fuzz    := $(SAN) -fsanitize=address,undefined,fuzzer-no-link

LINK_release := -pie -Wl,-z,relro,-z,now -Wl,--gc-sections
LINK_asan    := -fsanitize=address,undefined
LINK_tsan    := -fsanitize=thread
LINK_fuzz    := -fsanitize=address,undefined,fuzzer

LIBS  := -L$(PRIVATE)/lib -Wl,--as-needed -luv -lcurl -lllhttp -lyyjson -lssl -lcrypto -lsqlite3 -lyaml -lm
RPATH := -Wl,--enable-new-dtags,-rpath,$(PRIVATE)/lib

# --- how it speaks --------------------------------------------------------------------------------

Q   := $(if $(V),,@)
say  = @printf '%-5s %s\n' $1 $2
# Rewrites its target only when the text differs, so that what depends on it is made anew only then.
keep = @mkdir -p $(@D); echo '$1' | cmp -s - $@ || echo '$1' >$@

# --- the two commands and their relatives -----------------------------------------------------------

.PHONY: all run check unit e2e soak bench fuzz lint format install uninstall deb clean check-fresh check-deb deps help FORCE
.DEFAULT_GOAL := all
.SECONDARY:
.DELETE_ON_ERROR:

# What a goal needs is installed first (third_party/deps.sh); `make` alone never touches the system.
NEEDS_run         := build
NEEDS_check       := build test
NEEDS_unit        := build test
NEEDS_e2e         := build test
NEEDS_soak        := build test
NEEDS_bench       := build test bench
NEEDS_fuzz        := build fuzz
NEEDS_lint        := build test lint
NEEDS_format      := lint
NEEDS_deb         := build deb
NEEDS_check-fresh := fresh
NEEDS_check-deb   := fresh
NEEDS := $(sort $(foreach goal,$(MAKECMDGOALS),$(NEEDS_$(goal))))
DEPS  := $(if $(NEEDS),deps)

all: $(BUILD)/$(MODE)/chatmux

run: $(BUILD)/$(MODE)/chatmux
	@exec $< serve $(ARGS)

CHECKED := $(foreach mode,release asan,$(BUILD)/$(mode)/chatmux $(BUILD)/$(mode)/unit $(BUILD)/$(mode)/sim) \
           $(FUZZ:%=$(BUILD)/asan/fuzz/%)
check: $(CHECKED)
	@tests/check.sh sim:release sim:asan fuzz:asan unit:release unit:asan e2e:release e2e:asan

unit: $(BUILD)/$(MODE)/unit
	@tests/check.sh unit:$(MODE)

e2e: $(BUILD)/$(MODE)/chatmux
	@tests/check.sh e2e:$(MODE)

soak: $(BUILD)/release/chatmux $(BUILD)/release/sim
	@tests/check.sh simsoak:release soak:release

bench: $(BUILD)/release/chatmux $(BENCH:%=$(BUILD)/release/bench/%)
	@CHATMUX_BIN=$(abspath $<) BENCH_BIN=$(abspath $(BUILD)/release/bench) bench/run.sh

T ?= 60
fuzz: $(FUZZ:%=$(BUILD)/fuzz/fuzz/%)
	@tests/fuzz/run.sh $(T) $(FUZZ)

check-fresh: $(DEPS)
	@tests/check-fresh.sh $(RELEASES)
	@tests/check-deb.sh $(RELEASES)

check-deb: $(DEPS)
	@tests/check-deb.sh $(RELEASES)

deps:
	@third_party/deps.sh $(NEEDS)

clean:
	rm -rf $(BUILD)

help:
	@echo 'make              build/release/chatmux'
	@echo 'make run          installs what is missing, builds, starts the gateway on 127.0.0.1:8080'
	@echo 'make check        installs what tests need; unit, fuzz-corpus and end-to-end tests, plain and sanitized'
	@echo 'make unit, e2e    one part of them, in MODE (SUITE=pool, E2E=tests/e2e/demo.test.mjs)'
	@echo 'make fuzz T=60    libFuzzer, T seconds for each target    make soak    the long runs'
	@echo 'make lint         warnings, layout, clang-tidy, shell scripts, layers    make format'
	@echo 'make bench        the measured promises'
	@echo 'make check-fresh  run and check in bare Debian 12 and 13 systems (root)'
	@echo 'make check-deb    the package and the container image in the same systems (root)'
	@echo 'make deb          build/deb/chatmux_VERSION_ARCH.deb for this release of Debian'
	@echo 'make install      DESTDIR, PREFIX, SYSCONFDIR as usual (PREFIX=$(PREFIX))    make uninstall    make clean'

# --- one set of rules for each mode ---------------------------------------------------------------

# $1 mode, $2 compiler
define MODE_RULES
$(BUILD)/$1/flags: FORCE
	$$(call keep,$2 $(BASE) $(FLAGS_$1) $(CPPFLAGS) $(CFLAGS) | $(LINK_$1) $(LDFLAGS))

$(BUILD)/$1/sources: FORCE
	$$(call keep,$(SRC) $(UNIT) $(SIM))

$(BUILD)/$1/%.o: %.c $(BUILD)/$1/flags | $(DEPS)
	$$(call say,CC,$$<)
	@mkdir -p $$(@D)
	$(Q)$2 $(BASE) $(FLAGS_$1) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $$< -o $$@

$(BUILD)/$1/libchatmux.a: $(patsubst %.c,$(BUILD)/$1/%.o,$(filter-out src/main.c,$(SRC))) $(BUILD)/$1/sources
	$$(call say,AR,$$@)
	@rm -f $$@
	$(Q)$(AR) rcs $$@ $$(filter %.o,$$^)

$(BUILD)/$1/chatmux: $(BUILD)/$1/src/main.o $(BUILD)/$1/libchatmux.a
	$$(call say,LINK,$$@)
	$(Q)$2 $(LINK_$1) $(LDFLAGS) $$^ $(LIBS) $(RPATH) -pthread -o $$@
	$(if $(filter release,$1),$(Q)$$(call split_symbols))

$(BUILD)/$1/unit: $(UNIT:%.c=$(BUILD)/$1/%.o) $(BUILD)/$1/libchatmux.a $(BUILD)/$1/sources
	$$(call say,LINK,$$@)
	$(Q)$2 $(LINK_$1) $(LDFLAGS) $$(filter %.o %.a,$$^) $$$$(pkg-config --libs check) $(LIBS) $(RPATH) -pthread -o $$@

# Its objects come first: they stand in for the loop, the lanes and the HTTP server of the archive.
$(BUILD)/$1/sim: $(SIM:%.c=$(BUILD)/$1/%.o) $(BUILD)/$1/libchatmux.a $(BUILD)/$1/sources
	$$(call say,LINK,$$@)
	$(Q)$2 $(LINK_$1) $(LDFLAGS) $$(filter %.o %.a,$$^) $(LIBS) $(RPATH) -pthread -o $$@

# Under libFuzzer the target has a main; elsewhere replay_main.c feeds it the files of its corpus.
$(BUILD)/$1/fuzz/%: $(BUILD)/$1/tests/fuzz/fuzz_%.o $(if $(filter fuzz,$1),,$(BUILD)/$1/tests/fuzz/replay_main.o) $(BUILD)/$1/tests/unit/wire.o $(BUILD)/$1/libchatmux.a
	$$(call say,LINK,$$@)
	@mkdir -p $$(@D)
	$(Q)$2 $(LINK_$1) $(LDFLAGS) $$^ $(LIBS) $(RPATH) -pthread -o $$@

$(BUILD)/$1/bench/%: $(BUILD)/$1/bench/%.o $(BUILD)/$1/libchatmux.a
	$$(call say,LINK,$$@)
	$(Q)$2 $(LINK_$1) $(LDFLAGS) $$^ $(LIBS) $(RPATH) -pthread -o $$@
endef

# The binary that ships has no symbols; chatmux.debug beside it holds them, and debuggers find it.
split_symbols = cd $(@D) && objcopy --only-keep-debug $(@F) $(@F).debug && \
    objcopy --strip-all --add-gnu-debuglink=$(@F).debug $(@F)

$(foreach mode,$(filter-out fuzz,$(MODES)),$(eval $(call MODE_RULES,$(mode),$(CC))))
$(eval $(call MODE_RULES,fuzz,$(FUZZ_CC)))

-include $(foreach mode,$(MODES),$(OWN_C:%.c=$(BUILD)/$(mode)/%.d))

# --- lint: every file on its own, again only when it or what it includes has changed ------------------

LINT_FLAGS := $(BASE) -Werror $(FLAGS_release)

lint: $(OWN_C:%=$(BUILD)/lint/%.ok) $(OWN_H:%=$(BUILD)/lint/%.ok)
	@tests/lint/lint.sh $^

$(BUILD)/lint/flags: FORCE
	$(call keep,$(CC) $(LINT_FLAGS))

$(BUILD)/lint/%.ok: % $(BUILD)/lint/flags .clang-format .clang-tidy tests/lint/file.sh | $(DEPS)
	$(call say,LINT,$<)
	@mkdir -p $(@D)
	@CC='$(CC)' tests/lint/file.sh $< $@ $(LINT_FLAGS)

-include $(OWN_C:%=$(BUILD)/lint/%.d) $(OWN_H:%=$(BUILD)/lint/%.d)

format: $(DEPS)
	clang-format-19 -i $(OWN_C) $(OWN_H)

# --- install --------------------------------------------------------------------------------------

SYSCONFDIR ?= /etc
comma      := ,

# Linked anew: the installed program looks for private libraries in PREFIX/lib/chatmux, not in this tree.
$(BUILD)/install/chatmux: $(BUILD)/release/src/main.o $(BUILD)/release/libchatmux.a
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LINK_release) $(LDFLAGS) $^ $(LIBS) -s -pthread \
	    $(if $(wildcard $(PRIVATE)/lib),-Wl$(comma)--enable-new-dtags$(comma)-rpath$(comma)'$$ORIGIN/../lib/chatmux') -o $@

# $1 source, $2 target below PREFIX
define put_file
	install -D -m 644 $1 $(DESTDIR)$(PREFIX)/$2
endef
# the same for what names @PREFIX@ and @SYSCONFDIR@
define put_text
	@install -d $(dir $(DESTDIR)$(PREFIX)/$2)
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' $1 >$(DESTDIR)$(PREFIX)/$2
endef

# Nothing is put below SYSCONFDIR: the configuration is the administrator's.
install: $(BUILD)/install/chatmux
	install -D -m 755 $< $(DESTDIR)$(PREFIX)/bin/chatmux
	$(call put_text,packaging/chatmux.service,lib/systemd/system/chatmux.service)
	$(call put_text,packaging/chatmux.socket,lib/systemd/system/chatmux.socket)
	$(call put_text,packaging/chatmux.sysusers,lib/sysusers.d/chatmux.conf)
	$(call put_text,packaging/chatmux.1,share/man/man1/chatmux.1)
	$(call put_file,config.example.ini,share/chatmux/config.example.ini)
	$(call put_file,README.md,share/doc/chatmux/README.md)
	$(call put_file,docs/contract.md,share/doc/chatmux/docs/contract.md)
	$(call put_file,third_party/README.md,share/doc/chatmux/third_party/README.md)
	ln -sf ../../chatmux/config.example.ini $(DESTDIR)$(PREFIX)/share/doc/chatmux/config.example.ini
	if [ -d $(PRIVATE)/lib ]; then \
	    cd $(PRIVATE) && install -d $(DESTDIR)$(PREFIX)/lib/chatmux && \
	    cp -a --no-preserve=ownership lib/*.so.* $(DESTDIR)$(PREFIX)/lib/chatmux/ && \
	    install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/chatmux/licences licences/*; \
	fi

uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/chatmux lib/sysusers.d/chatmux.conf share/man/man1/chatmux.1 \
	    lib/systemd/system/chatmux.service lib/systemd/system/chatmux.socket)
	rm -rf $(addprefix $(DESTDIR)$(PREFIX)/,lib/chatmux share/chatmux share/doc/chatmux)

# build/deb/chatmux_VERSION_ARCH.deb, for the release of Debian that this machine runs.
deb: $(BUILD)/install/chatmux
	+@MAKEFLAGS='$(filter-out -j% --jobserver%,$(MAKEFLAGS))' packaging/deb.sh $(BUILD)/deb
