"""Shell around volumes: named, bind, tmpfs and anonymous."""
