"""Where does a message go? Exchange types, and the table that joins them into one virtual host."""
