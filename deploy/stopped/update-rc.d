#!/bin/sh
# Stands before the real one while install-stopped.sh runs: the System V script of a new package is registered as disabled.
case " $SHOAL_NEW_PACKAGES " in *" ${DPKG_MAINTSCRIPT_PACKAGE:-} "*)
    [ "${2:-}" != defaults ] || set -- "$1" defaults-disabled ;;
esac
PATH=${PATH#*:}
exec update-rc.d "$@"
