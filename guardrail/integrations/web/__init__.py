"""What the servers of this package share: authentication, errors, pages."""
