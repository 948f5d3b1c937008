# A web server that answers every request with the prepared page and with its own name.
use strict;
use warnings;
use IO::Socket::INET;

$| = 1;
my $name = "$ENV{KEEPALIVE_SERVICE}.$ENV{KEEPALIVE_INSTANCE}";
my $port = $ENV{PORT};
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 16, ReuseAddr => 1)
    or die "$name: cannot listen on port $port: $!\n";
$SIG{TERM} = sub { print "$name: asked to stop, bye\n"; exit 0 };
$SIG{PIPE} = 'IGNORE';
print "$name: listening on http://127.0.0.1:$port\n";

while (1) {
    my $client = $listener->accept or next;
    while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/ }
    open(my $file, '<', "$ENV{DATA}/page.txt") or die "$name: $ENV{DATA}/page.txt: $!\n";
    my $body = <$file> . "Served by $name, process $$.\n";
    print $client "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    close $client;
}
