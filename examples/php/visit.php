<?php
// SPDX-License-Identifier: Apache-2.0
//
// Counts this visit in its session, in memory that all of Apache's processes share (APCu), and in a segment of System V
// that nobody has attached between two visits. Answers with all three counts, and with a word that the session keeps.

session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
$_SESSION['word'] ??= bin2hex(random_bytes(16));

$key = ftok(__FILE__, 'v');
$lock = sem_get($key);
sem_acquire($lock);
$segment = shm_attach($key, 65536);
$shared = shm_has_var($segment, 1) ? shm_get_var($segment, 1) + 1 : 1;
shm_put_var($segment, 1, $shared);
shm_detach($segment);
sem_release($lock);

header('Content-Type: application/json');
echo json_encode([
    'visits' => $_SESSION['visits'],
    'word' => $_SESSION['word'],
    'apcu' => apcu_inc('visits'),
    'shared' => $shared,
    'pid' => getmypid(),
]);
