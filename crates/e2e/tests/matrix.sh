# Run by sh in the container of tests/matrix.rs; /mnt is a volume of the host.
export PYTHONDONTWRITEBYTECODE=1 GIT_CONFIG_NOSYSTEM=1 HOME=/tmp
section() {
    name=$1
    shift
    ("$@") >/tmp/section.log 2>&1
    status=$?
    [ $status = 0 ] || { echo "--- $name:"; tail -n 20 /tmp/section.log; }
    grep '^value ' /tmp/section.log
    echo "=== $name $status"
}

# $ls: whether this client lets `ls` of the tree ask at all (see tests/matrix.rs).
list() {
    [ $ls = refused ] || ls -lR /usr >/dev/null || return
    echo "value list $(find /usr -printf '%M %U %G %p %l\n' | LC_ALL=C sort | sha256sum)"
}
count() {
    echo "value count $(find / -xdev | wc -l)"
}
tar_of_lib() {
    echo "value tar $(tar --sort=name --format=gnu --numeric-owner -C / -cf - usr/lib | sha256sum)"
}
git_history() {
    set -e
    mkdir /mnt/git && cd /mnt/git
    git config --global user.name e2e
    git config --global user.email e2e@localhost
    git config --global --add safe.directory '*'
    git init --quiet one && cd one
    i=0
    while [ $i -lt 300 ]; do
        [ $((i % 30)) != 0 ] || mkdir -p dir$((i / 30))
        echo "content of file $i" >dir$((i / 30))/file$i
        i=$((i + 1))
    done
    git add .
    git commit --quiet --message 'Add 300 files'
    [ -z "$(git status --porcelain)" ]
    git clone --quiet . ../two
    cd ../two
    [ "$(git ls-files | wc -l)" = 300 ]
    git fsck --strict
    diff -r --exclude=.git . ../one
}
c_program() {
    set -e
    mkdir /mnt/c && cd /mnt/c
    cat >hello.c <<'C'
#include <stdio.h>
int main(void) { puts("compiled"); return 0; }
C
    gcc -O1 -o hello hello.c
    [ "$(./hello)" = compiled ]
    # Once more in the root itself, which is another mount with other rules.
    cp hello.c /root/hello.c
    gcc -o /root/hello /root/hello.c
    [ "$(/root/hello)" = compiled ]
}
python_modules() {
    cat >/tmp/modules.py <<'PY'
import importlib
names = """abc argparse array ast asyncio base64 bisect calendar cmath codecs collections
concurrent.futures configparser contextlib copy csv ctypes datetime decimal difflib email enum
fractions ftplib functools gettext glob gzip hashlib heapq html http.client imaplib inspect io json
logging lzma mimetypes multiprocessing optparse pathlib pickle platform pprint queue random re
sched secrets sqlite3 statistics tarfile tempfile unittest xml.dom.minidom zipfile""".split()
assert len(names) >= 50
for name in names:
    importlib.import_module(name)
PY
    python3 /tmp/modules.py
}
sqlite_in() {
    set -e
    mkdir -p /mnt/sqlite
    sqlite3 /mnt/sqlite/$1.db <<SQL
PRAGMA journal_mode=$2;
CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO t SELECT i, hex(randomblob(40)) FROM n;
CREATE INDEX by_word ON t(word);
BEGIN; DELETE FROM t WHERE id % 3 = 0; ROLLBACK;
DELETE FROM t WHERE id % 5 = 0;
VACUUM;
SQL
    [ "$(sqlite3 /mnt/sqlite/$1.db 'PRAGMA integrity_check; SELECT count(*) FROM t')" = "ok
4000" ]
    [ $1 != plain ] || echo "value database $(sha256sum /mnt/sqlite/plain.db | cut -d ' ' -f 1)"
}
many_files() {
    cat >/tmp/many.py <<'PY'
import os
os.mkdir("/mnt/many")
os.chdir("/mnt/many")
for i in range(10000):
    with open(f"a{i}", "w") as f:
        f.write(str(i))
assert len(os.listdir(".")) == 10000
for i in range(10000):
    os.rename(f"a{i}", f"b{i}")
assert sorted(os.listdir(".")) == sorted(f"b{i}" for i in range(10000))
for i in range(0, 10000, 100):
    assert open(f"b{i}").read() == str(i)
for i in range(10000):
    os.unlink(f"b{i}")
assert os.listdir(".") == []
PY
    python3 /tmp/many.py
}

section list list
section count count
section tar tar_of_lib
section git git_history
section c c_program
section python python_modules
section sqlite sqlite_in plain delete
section sqlite-wal sqlite_in wal wal
section many many_files
