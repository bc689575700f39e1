<?php
// SPDX-License-Identifier: Apache-2.0
//
// A visit of a session that has some kilobytes in it, in the directory that the request names.
session_save_path($_GET['in'] === 'memory' ? '/dev/shm/sessions' : '/var/lib/php/sessions');
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
$_SESSION['basket'] ??= array_fill(0, 50, str_repeat('article ', 10));
echo 'visit', "\n";
